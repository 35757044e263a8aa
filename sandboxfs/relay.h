/*
 * Relays: sockets on 127.0.0.1 whose connections reach a port inside a sandbox, through the relay route of its server.
 *
 * A relay set belongs to one sandbox and owns one thread, its listeners and their connections (at most RELAY_CONNECTIONS at a
 * time; more wait in the listener's queue). Bytes and half-closes pass both ways, memory per connection is bounded.
 * Thread-safe. Knows nothing of files.
 */
#ifndef SBX_RELAY_H
#define SBX_RELAY_H

#include <stdint.h>

#include "call.h"
#include "sandbox.h"

enum { RELAY_CONNECTIONS = 256 };

struct relay_set;

/* 0 and *out new; its thread starts with the first listener. sb is borrowed. */
int relay_set_new(struct sandbox *sb, struct relay_set **out);
/* Closes all and ends the thread; no listener is opened any more. Any thread, once or more. */
void relay_set_stop(struct relay_set *s);
void relay_set_free(
	struct relay_set *s); /* stops it; nobody else uses it any more. NULL is allowed */

/*
 * Listens for `port` of the sandbox: on the same number where it is free here, else on another. 0 and the number in *listens,
 * -EEXIST (it does already), -ENOTSUP (a server that cannot be reached by a plain connection), or another errno, with a fault.
 * The sandbox must have been ready once.
 */
int relay_open(struct relay_set *s, struct call *c, uint16_t port, uint16_t *listens);
/* Closes the listener and its connections. Harmless if there is none. */
void relay_close(struct relay_set *s, uint16_t port);

#endif
