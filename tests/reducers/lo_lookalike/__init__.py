"""A module in the manner of the Learning Observer: what its authors write, as they write it.

`module` is what the entry point names: NAME, REDUCERS, and much that is no business of ours.  The reducers are in
`reducers`, with a helper in `typed`; `pages` is a dashboard, which wants packages that are not there.
"""
