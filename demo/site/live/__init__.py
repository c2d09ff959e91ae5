"""The live figures of the post: what each draws at build time, and what it reads in the page."""
