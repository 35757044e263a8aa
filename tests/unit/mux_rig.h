/*
 * What the tests of the tunnel stand on: two sides over a socketpair that can be made to do wrong, sockets in front and behind, an echo
 * service, and talkers that check every byte. What is not said to return an error fails the test itself.
 */
#ifndef MUX_RIG_H
#define MUX_RIG_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "mux.h"

/* As many descriptors as there may be: a connection is four of them here. Once, in main. */
void rig_raise_limit(void);

/* --- a carrier over one end of a socketpair --- */

enum fault { FAULT_NONE, FAULT_FLIP, FAULT_DROP, FAULT_DOUBLE };

struct wire {
	int fd;
	enum fault fault;
	uint64_t fault_at; /* byte of what is written */
	uint64_t written;
	size_t most; /* bytes in one read or write; 0: as many as go */
};

/* --- the two sides --- */

/* One side, on a thread of its own while it is not joined. */
struct side {
	struct mux_spec spec;
	struct wire wire;
	pthread_t thread;
	int rc;
	bool joined;
};

/* client: listens at front; sandbox: connects to back. */
struct rig {
	char dir[64];
	char front[96], back[96];
	struct side client, sandbox;
	int front_fd, back_fd, stop;
};

/* Both sides with working carriers, neither started. */
void rig_init(struct rig *r);
void side_start(struct side *s);
/* Waits for its end: what mux_run returned. Idempotent. */
int side_end(struct side *s);
void rig_start(struct rig *r);
/* Tells the client's side to stop, and does not wait. */
void rig_stop(struct rig *r);
/* Stops what runs and releases all. */
void rig_end(struct rig *r);

/* --- connections --- */

/* A new connection, as a program on the client's side makes it. */
int front(struct rig *r);
/* The connection that arrives in the sandbox; waits for it, 20 s at most. */
int back(struct rig *r);
void send_all(int fd, const void *p, size_t n);
/* Bytes until the end of file; -1: an error. */
ssize_t receive_all(int fd, void *p, size_t size);

/* One connection: size bytes, which k and their places determine. */
struct talker {
	struct rig *rig;
	unsigned k;
	size_t size;
	pthread_t thread, writer;
	int fd;
	bool good;
};

/* A thread's body: sends the bytes of a struct talker to its fd and ends that direction, or stops at an error. */
void *talker_write(void *talker);
/* Are these the bytes of talker k from that place on? */
bool same(const unsigned char *p, size_t n, unsigned k, uint64_t from);
/* So many talkers at once, of up to `most` bytes each, and an echo behind: each hears what it said. */
void talk(struct rig *r, unsigned count, size_t most);

#endif
