"""Models of the proxies: one module per pretext task, each with a `backbone` that M&M takes over."""
