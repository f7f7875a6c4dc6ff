"""What the theses share. Imports run one way: projects -> common, never back."""
