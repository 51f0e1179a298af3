"""The ways in which bench/fleet runs Redis, a class for each. It has the lines of the store in gateway.toml, finds the server of a key, and has
the faults that Redis is put through. No fault loses an acknowledged write."""

import binascii
import random
import subprocess
import time

from stage import RedisClient, command, free_port, wait_until

# A write is in the file before it is acknowledged.
DURABLE = "save ''\nappendonly yes\nappendfsync always\nauto-aof-rewrite-percentage 0\nrepl-diskless-sync-delay 0\n"
DOWN = 1  # seconds from a kill to the start
SERVICE = "fleet"
SLOTS = 16384


class Server:
    """A process of Redis in a folder of its own. It can be killed and started again; its file keeps what it is."""

    def __init__(self, stage, name, settings="", *arguments):
        self.stage, self.name, self.arguments, self.port = stage, name, arguments, free_port()
        self.address, self.url = ("127.0.0.1", self.port), f"redis://127.0.0.1:{self.port}"
        folder = stage.work / name
        folder.mkdir()
        self.file = folder / "redis.conf"
        self.file.write_text(f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n{settings}")
        self.start()

    def start(self):
        self.process = self.stage.start(self.name, "redis-server", self.file, *self.arguments)
        wait_until(lambda: self.ask("PING"), self.name, seconds=60)

    def ask(self, *words):
        with RedisClient(self.address) as client:
            return client.ask(*words)

    def role(self):
        return self.ask("ROLE")[0].decode()

    def kill(self):
        self.process.kill()
        self.process.wait()


class Single:
    """One Redis."""

    replicas = 0

    def __init__(self, stage):
        self.servers = [Server(stage, "redis", DURABLE)]
        self.toml = f'url = "{self.servers[0].url}/0"'
        # What is done, and whether look-ups fail meanwhile.
        self.faults = {
            "all connections closed by Redis": (self.close_connections, False),
            "Redis killed, started again after a second": (self.restart, True),
        }

    def server_of(self, _key):
        return self.servers[0]

    def write(self, *words):
        """One command, whose first argument is its key. Returns once no fault can lose it."""
        with RedisClient(self.server_of(words[1]).address) as client:
            client.ask(*words)
            # Each replica may be promoted.
            if int(client.ask("WAIT", self.replicas, 1000)) < self.replicas:
                raise OSError("a replica does not have the write")

    def load(self, commands):
        """Many commands, in few writes."""
        of_servers = {}
        for words in commands:
            of_servers.setdefault(self.server_of(words[1]), []).append(command(*words))
        for server, wire in of_servers.items():
            with RedisClient(server.address) as client:
                for first in range(0, len(wire), 1000):
                    client.ask_all(b"".join(wire[first : first + 1000]), len(wire[first : first + 1000]))
                client.ask("WAIT", self.replicas, 60_000)
                client.ask("BGREWRITEAOF")  # it then starts quickly
                wait_until(lambda: b"aof_rewrite_in_progress:0" in client.ask("INFO", "persistence"), "the file", seconds=60)

    def close_connections(self, _fault):
        for server in self.servers:
            server.ask("CLIENT", "KILL", "TYPE", "normal")

    def restart(self, _fault):
        server = self.servers[0]
        server.kill()
        time.sleep(DOWN)
        server.start()


class Sentinel(Single):
    """A primary with two replicas, and three sentinels."""

    replicas = 2

    def __init__(self, stage):
        first = Server(stage, "redis-0", DURABLE)
        of_first = f"{DURABLE}replicaof 127.0.0.1 {first.port}\n"
        self.servers = [first, *(Server(stage, f"redis-{number}", of_first) for number in (1, 2))]
        settings = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {first.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 5000\n"
        )
        self.sentinels = [Server(stage, f"sentinel-{number}", settings, "--sentinel") for number in range(3)]
        wait_until(self.is_complete, "the sentinels")
        urls = ", ".join(f'"{sentinel.url}"' for sentinel in self.sentinels)
        self.toml = f'mode = "sentinel"\nurls = [{urls}]\nservice = "{SERVICE}"'
        self.faults = {
            "all connections closed by Redis": (self.close_connections, False),
            "primary killed, a replica promoted": (self.kill_primary, True),
        }

    def is_complete(self):
        known = lambda sentinel, what: len(sentinel.ask("SENTINEL", what, SERVICE))
        followers = sum(b"master_link_status:up" in server.ask("INFO", "replication") for server in self.servers)
        return followers == 2 and all(known(sentinel, "SENTINELS") == 2 and known(sentinel, "REPLICAS") == 2 for sentinel in self.sentinels)

    def server_of(self, _key):
        named = int(self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])
        return next(server for server in self.servers if server.port == named)

    def is_replaced(self, old):
        new = self.server_of(None)
        return new is not old and new.role() == "master"

    def kill_primary(self, fault):
        old = self.server_of(None)
        old.kill()
        wait_until(lambda: self.is_replaced(old), "the failover", seconds=60)
        fault.is_over()
        old.start()
        wait_until(self.is_complete, "the replicas", seconds=60)


class Cluster(Single):
    """Three primaries with a replica each."""

    replicas = 1

    def __init__(self, stage):
        settings = (
            f"{DURABLE}cluster-enabled yes\ncluster-node-timeout 1500\ncluster-require-full-coverage no\n"
            "cluster-replica-validity-factor 0\n"
        )
        self.servers = [Server(stage, f"redis-{number}", f"{settings}cluster-port {free_port()}\n") for number in range(6)]
        self.of_slots = None
        self.make()
        urls = ", ".join(f'"{server.url}"' for server in self.servers)
        self.toml = f'mode = "cluster"\nurls = [{urls}]'
        self.faults = {
            "all connections closed by Redis": (self.close_connections, False),
            "slots moved to another server": (self.move_slots, False),
            "primary killed, its replica promoted": (self.kill_primary, True),
        }

    def make(self):
        first, *others = self.servers
        for number, server in enumerate(self.servers[:3]):
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            server.ask("CLUSTER", "ADDSLOTSRANGE", SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1)
        for server in others:
            bus = first.file.read_text().rpartition("cluster-port ")[2].split()[0]
            server.ask("CLUSTER", "MEET", "127.0.0.1", first.port, bus)
        wait_until(lambda: all(b"cluster_known_nodes:6" in server.ask("CLUSTER", "INFO") for server in self.servers), "the cluster")
        for primary, replica in zip(self.servers[:3], self.servers[3:]):
            name = primary.ask("CLUSTER", "MYID")
            wait_until(lambda: name in replica.ask("CLUSTER", "NODES"), "the cluster")
            replica.ask("CLUSTER", "REPLICATE", name)
        wait_until(self.is_complete, "the cluster", seconds=30)

    def is_complete(self):
        """Each server knows three primaries of all slots, with a replica each."""
        views = [server.ask("CLUSTER", "SLOTS") for server in self.servers]
        followers = sum(b"master_link_status:up" in server.ask("INFO", "replication") for server in self.servers)
        covered = lambda view: sum(last[1] - last[0] + 1 for last in ([int(first), int(end)] for first, end, *_ in view))
        return followers == 3 and all(covered(view) == SLOTS and all(len(part) == 4 for part in view) for view in views)

    def primaries(self):
        """The server of each slot, as the first server that answers says."""
        for server in self.servers:
            try:
                view = server.ask("CLUSTER", "SLOTS")
            except OSError:
                continue
            ports = {other.port: other for other in self.servers}
            found = {}
            for first, last, primary, *_ in view:
                found.update(dict.fromkeys(range(int(first), int(last) + 1), ports[int(primary[1])]))
            return found
        raise OSError("no server answers")

    def server_of(self, key):
        self.of_slots = self.of_slots or self.primaries()
        return self.of_slots[binascii.crc_hqx(key.encode(), 0) % SLOTS]

    def write(self, *words):
        try:
            super().write(*words)
        except OSError:
            self.of_slots = None  # perhaps the slot has moved
            raise

    def kill_primary(self, fault):
        slot = random.randrange(SLOTS)
        old = self.primaries()[slot]
        old.kill()
        wait_until(lambda: self.primaries()[slot] is not old, "the failover", seconds=60)
        fault.is_over()
        old.start()
        wait_until(self.is_complete, "the cluster", seconds=60)

    def move_slots(self, _fault, count=200):
        of_slots = self.primaries()
        source, target = random.sample(sorted(set(of_slots.values()), key=lambda server: server.name), 2)
        names = [server.ask("CLUSTER", "MYID").decode() for server in (source, target)]
        where = ["--cluster-from", names[0], "--cluster-to", names[1], "--cluster-slots", str(count), "--cluster-yes"]
        reshard = ["redis-cli", "--cluster", "reshard", f"127.0.0.1:{source.port}", *where]
        done = subprocess.run(reshard, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise SystemExit(f"redis-cli could not move slots: {done.stdout[-2000:]} {done.stderr}")


MODES = {"single": Single, "sentinel": Sentinel, "cluster": Cluster}
