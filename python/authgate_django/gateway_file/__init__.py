"""gateway.toml from the project itself: `manage.py authgate_config`.

`patterns` reads one pattern of the URLconf, `views` the policy of one view, `authenticators` the settings, and
`jwt_users` how SimpleJWT finds users. `routes` joins them, `render` writes the file, `compare` compares a file with it.
"""
