//! [`Cluster`]: a Redis Cluster of three primaries.

use std::cell::RefCell;

use redis::Value;
use redis::cluster::{ClusterClient, ClusterConnection};

use super::redis::PREFIX;
use super::server::{Records, Server, settles};

const SETTINGS: &str = "cluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout 1500\ncluster-require-full-coverage no\n\
    cluster-replica-validity-factor 0\nrepl-diskless-sync-delay 0\n";
/// The last slot of each primary.
const LAST: [u16; 3] = [5460, 10922, 16383];

pub struct Cluster {
    /// The primary of slots up to 5460, up to 10922, and up to 16383.
    pub primaries: Vec<Server>,
    pub replicas: Vec<Server>,
    client: RefCell<ClusterConnection>,
}

impl Cluster {
    /// Started, with all slots served. The first `replicas` primaries have a replica.
    pub fn start(replicas: usize) -> Self {
        let start = |_| Server::start(&[], SETTINGS);
        let primaries: Vec<_> = (0..3).map(start).collect();
        let mut first = 0;
        for (index, primary) in primaries.iter().enumerate() {
            let last = LAST[index];
            primary.run(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            primary.run(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            first = last.saturating_add(1);
        }
        let replicas: Vec<_> = (0..replicas).map(start).collect();
        for server in primaries.iter().skip(1).chain(&replicas) {
            meet(server, &primaries[0]);
        }
        let count = primaries.len() + replicas.len();
        let all = || primaries.iter().chain(&replicas);
        for server in all() {
            settles("the servers of the cluster list each other", || {
                let info = server.text(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{count}"))
            });
        }
        for (replica, primary) in replicas.iter().zip(&primaries) {
            replica.run(&["CLUSTER", "REPLICATE", &id(primary)]);
        }
        for replica in &replicas {
            settles("the replica follows", || replica.is_replicating());
        }
        for server in all() {
            settles("all list the replicas", || {
                server.text(&["CLUSTER", "NODES"]).matches("slave").count() == replicas.len()
            });
        }
        let client = ClusterClient::new(primaries.iter().map(Server::url)).expect("URLs");
        let client = RefCell::new(client.get_connection().expect("a cluster"));
        Self {
            primaries,
            replicas,
            client,
        }
    }

    /// `urls`, for the configuration.
    pub fn urls(&self) -> String {
        let urls: Vec<_> = self
            .primaries
            .iter()
            .map(|server| format!("{:?}", server.url()))
            .collect();
        urls.join(", ")
    }

    /// One command, by the client of the redis crate, which finds the server of its key.
    pub fn run(&self, words: &[&str]) -> Value {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let answer = command.query(&mut *self.client.borrow_mut());
        answer.unwrap_or_else(|problem| panic!("{words:?}: {problem}"))
    }

    /// The primary of a key, at the start.
    pub fn index_of(&self, key: &str) -> usize {
        let slot = self.slot_of(key);
        LAST.iter().position(|last| slot <= *last).expect("a slot")
    }

    pub fn slot_of(&self, key: &str) -> u16 {
        let key = format!("{PREFIX}{key}");
        let mut slots = self
            .primaries
            .iter()
            .filter_map(|server| server.try_run(&["CLUSTER", "KEYSLOT", &key]).ok());
        let slot = slots.next().expect("a server answers");
        redis::from_redis_value(slot).expect("a number")
    }

    /// Adds a server without slots.
    pub fn add(&mut self) -> usize {
        let server = Server::start(&[], SETTINGS);
        meet(&server, &self.primaries[0]);
        let count = self.primaries.len() + self.replicas.len() + 1;
        self.primaries.push(server);
        for server in self.primaries.iter().chain(&self.replicas) {
            settles("all list the new server", || {
                let info = server.text(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{count}"))
            });
        }
        self.primaries.len() - 1
    }

    /// Begins to move a slot, so that ASK is answered for its keys that are not there any more.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let (slot, from, to) = (slot.to_string(), &self.primaries[from], &self.primaries[to]);
        to.run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        from.run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
    }

    /// Moves the keys of a slot.
    pub fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let (from, to) = (&self.primaries[from], &self.primaries[to]);
        loop {
            let keys = from.run(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "10"]);
            let keys: Vec<String> = redis::from_redis_value(keys).expect("names");
            if keys.is_empty() {
                return;
            }
            let port = to.port.to_string();
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            from.run(&words);
        }
    }

    /// Ends the move: MOVED is answered from now on.
    pub fn end_move(&self, slot: u16, from: usize, to: usize) {
        let (slot, new) = (slot.to_string(), id(&self.primaries[to]));
        for server in [to, from] {
            self.primaries[server].run(&["CLUSTER", "SETSLOT", &slot, "NODE", &new]);
        }
    }

    pub fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_move(slot, from, to);
        self.move_keys(slot, from, to);
        self.end_move(slot, from, to);
    }
}

fn id(server: &Server) -> String {
    server.text(&["CLUSTER", "MYID"])
}

fn meet(server: &Server, other: &Server) {
    // Its bus port is not the usual one.
    let nodes = other.text(&["CLUSTER", "NODES"]);
    let line = nodes.lines().find(|line| line.contains("myself")).expect("itself");
    let bus = line
        .split_once('@')
        .expect("a bus port")
        .1
        .split([' ', ','])
        .next()
        .expect("a number");
    server.run(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), bus]);
}

impl Records for Cluster {
    fn set(&self, key: &str, value: &str) {
        self.run(&["SET", &format!("{PREFIX}{key}"), value]);
    }
}
