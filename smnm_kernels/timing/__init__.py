"""`smnm bench`: how long masks take, beside other ways to make them (``peers``), and how good they
are."""
