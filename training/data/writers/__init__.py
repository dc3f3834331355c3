"""One writer a format that training tools read."""
