"""Who may connect, what they may use, and the record of both."""
