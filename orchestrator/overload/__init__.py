"""What happens when there is more to do than can be done: measured, declared, undone again."""
