"""The sign-in broker's rules: what an authorization server must look at before it answers, and in which words.

`client` says who may be a client and where it may be answered, `redirect` what a redirect address is, `request` what
is asked for, `grant` what was granted and what an access token says of it, `refused` how a client is told no. Must not
fetch, keep, sign, read a clock or prove a token: doors and `identify` do.
"""
