"""The gateway's store in Redis, kept equal to the database of Django.

`records` has the layout, `sources` reads the rows, `client` talks to Redis, and `writer` makes records equal to rows.
`signals` calls the writer after each change, `sync` for all rows. `drift` compares without writing.
"""
