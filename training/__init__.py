"""The offline side: from labelled footage to weights. Nothing in the serving path imports it."""
