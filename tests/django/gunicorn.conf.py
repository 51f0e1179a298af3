"""Read by gunicorn when it is started in this folder."""

bind = "127.0.0.1:0"  # the log says which port it became: "Listening at: http://127.0.0.1:PORT"
wsgi_app = "mysite.wsgi"
workers = 1  # one process, so that the views' count of requests is the whole count
worker_class = "gthread"  # keeps connections alive, unlike the default
threads = 4
keepalive = 75
control_socket_disable = True

# The laxest reading: X_User_Id becomes HTTP_X_USER_ID, as with uWSGI. By itself gunicorn would drop that field, and a
# test could not tell whether the gateway did. Do not copy this line.
header_map = "dangerous"
