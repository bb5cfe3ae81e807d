"""How identity talks to PostgreSQL and to the libraries of cryptography."""
