"""What OpenAI's contract says of an answer, and a client whose every answer is held against it.

`endpoints` is the table, `sdk` checks against the SDK's types, `spec` against OpenAI's OpenAPI
document where there is one, `transport` puts both behind a client. Knows nothing of the server.
"""
