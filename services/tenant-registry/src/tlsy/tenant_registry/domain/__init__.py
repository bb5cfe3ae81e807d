"""What the catalogue decides: frozen values and pure functions, without clock, await or I/O."""
