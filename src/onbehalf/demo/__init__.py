"""The demo: a made-up company, an issuer, a ticket system and a story told through the real gateway.

Never for production: anybody may log in as anybody.
"""
