"""Chats: messages, the template that a model was trained with, and which part of the template each token belongs to."""
