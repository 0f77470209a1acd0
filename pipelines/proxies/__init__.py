"""Inputs of the proxies: one module per pretext task, each with its own `batches`."""
