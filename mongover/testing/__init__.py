"""What projects can test their revisions with.

`mongover.testing.crash` kills a real `mongover` at every write that it makes, and shows what the
next command makes of it.
"""
