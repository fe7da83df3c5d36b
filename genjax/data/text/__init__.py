"""Text: documents, tokenizers, and sources of tokens."""
