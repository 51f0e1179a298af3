"""The ways in which bench/fleet runs Redis. Each has the lines of the store in gateway.toml, finds the server of a key, and has the faults
that it is put through. Every acknowledged write survives them."""

import time

from stage import RedisClient, command, free_port, wait_until

# What a Redis needs to keep each acknowledged write when it is killed.
DURABLE = ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"]
DOWN = 1  # seconds from a kill to the start


class Server:
    """One redis-server, in a folder of its own, which can be killed and started again."""

    def __init__(self, stage, name, *arguments):
        self.stage, self.name, self.arguments, self.port = stage, name, arguments, free_port()
        self.address = ("127.0.0.1", self.port)
        (stage.work / name).mkdir()
        self.start()

    def start(self):
        folder = ["--port", self.port, "--bind", "127.0.0.1", "--dir", self.stage.work / self.name]
        self.process = self.stage.start(self.name, "redis-server", *folder, *DURABLE, *self.arguments)
        self.wait()

    def wait(self):
        wait_until(self.answers, self.name)

    def answers(self):
        try:
            return self.ask("PING") == b"PONG"
        except RuntimeError:
            return False  # LOADING

    def ask(self, *words):
        with RedisClient(self.address) as client:
            return client.ask(*words)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def restart(self):
        self.kill()
        time.sleep(DOWN)
        self.start()


class Single:
    """One Redis."""

    def __init__(self, stage):
        self.server = Server(stage, "redis")
        self.toml = f'url = "redis://127.0.0.1:{self.server.port}/0"'
        # A fault, and whether the store is away meanwhile.
        self.faults = {
            "all connections closed by Redis": (self.close_connections, False),
            "Redis killed, started again after a second": (self.server.restart, True),
        }

    def servers(self):
        return [self.server]

    def server_of(self, _key):
        return self.server

    def write(self, *words):
        """One command, whose first argument is its key. Returns once it is safe from the faults."""
        return self.server_of(words[1]).ask(*words)

    def load(self, commands):
        """Many commands, in few writes."""
        writes = {}
        for words in commands:
            writes.setdefault(self.server_of(words[1]), []).append(command(*words))
        for server, wire in writes.items():
            with RedisClient(server.address) as client:
                for first in range(0, len(wire), 1000):
                    batch = wire[first : first + 1000]
                    client.ask_all(b"".join(batch), len(batch))

    def close_connections(self):
        for server in self.servers():
            server.ask("CLIENT", "KILL", "TYPE", "normal")


MODES = {"single": Single}
