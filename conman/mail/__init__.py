"""Mails as they leave: links, templates, messages, and the ways out (`spec.md` 14)."""
