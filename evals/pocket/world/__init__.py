"""A small world that writes documents and knows what is true of every word in them."""

from __future__ import annotations

from .document import Document, Span
from .registers import (
    CORPUS_SIZE,
    HELD_OUT_SEED,
    MONITORED,
    REGISTERS,
    TRAIN_SEED,
    corpus_documents,
    document,
    documents,
    held_out_documents,
    training_texts,
    write_corpus,
)

__all__ = [
    "CORPUS_SIZE",
    "HELD_OUT_SEED",
    "MONITORED",
    "REGISTERS",
    "TRAIN_SEED",
    "Document",
    "Span",
    "corpus_documents",
    "document",
    "documents",
    "held_out_documents",
    "training_texts",
    "write_corpus",
]
