"""Models of the proxies: one module per pretext task; M&M takes over their `backbone`."""
