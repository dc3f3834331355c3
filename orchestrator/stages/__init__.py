"""The stages of the walk: each turns domain types into domain types by asking one model."""
