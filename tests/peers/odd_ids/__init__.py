"""An application whose users have texts as primary keys."""
