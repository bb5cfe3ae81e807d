"""Calls between services: errors, the interceptor, servers and channels, tokens, paging, catalogues."""
