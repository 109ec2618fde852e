"""onbehalf: LLM clients use a company's tools on behalf of a verified person, without authority of their own."""
