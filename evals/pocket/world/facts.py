"""The world's fixed facts: the same in every document, so that a model can know them by heart."""

from __future__ import annotations

from typing import NamedTuple

from .words import NAMES, PEOPLE


class Country(NamedTuple):
    """An invented country and what is always true of it."""

    name: str
    capital: str
    people: str
    colour: str
    animal: str


COUNTRIES = (
    Country("Arland", "Norwick", "Arlish", "red", "bear"),
    Country("Belmora", "Castra", "Belmoran", "blue", "horse"),
    Country("Corvia", "Dunmere", "Corvian", "green", "fox"),
    Country("Drenland", "Elbury", "Drennish", "yellow", "goat"),
    Country("Estova", "Farrow", "Estovan", "white", "duck"),
    Country("Galdia", "Hartsea", "Galdian", "black", "dog"),
    Country("Istria", "Kelby", "Istrian", "brown", "cow"),
    Country("Lorvania", "Merton", "Lorvanian", "grey", "cat"),
    Country("Morvia", "Oakham", "Morvian", "red", "bird"),
    Country("Pelland", "Quarry", "Pellish", "blue", "mouse"),
)
JOBS = {name: PEOPLE[(index * 7) % len(PEOPLE)] for index, name in enumerate(NAMES)}
HOMES = {name: COUNTRIES[(index * 3 + index // 10) % len(COUNTRIES)].capital for index, name in enumerate(NAMES)}
SOUNDS = {
    "dog": "barks",
    "cat": "purrs",
    "horse": "neighs",
    "cow": "moos",
    "bird": "sings",
    "duck": "quacks",
    "goat": "bleats",
    "fox": "yelps",
    "bear": "growls",
    "mouse": "squeaks",
}
