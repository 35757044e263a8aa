/*
 * Inside of the relays: relay.c (the set: thread, listeners) and relay_connection.c (one connection). Nobody else includes it.
 * All functions are called with the set's lock held; none of them blocks.
 */
#ifndef SBX_RELAY_IMPL_H
#define SBX_RELAY_IMPL_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "buf.h"
#include "relay.h"

enum source_kind { SOURCE_WAKE, SOURCE_LISTENER, SOURCE_CLIENT, SOURCE_SERVER };

/* A descriptor in epoll. */
struct source {
	enum source_kind kind;
	int fd;
	uint32_t armed; /* 0: not in epoll */
	void *owner;    /* listener or connection */
};

struct listener {
	struct listener *next;
	struct source source;
	uint16_t port; /* inside */
	bool dead;
};

/* Bytes on their way in one direction. */
struct flow {
	char *data; /* RELAY_BUFFER bytes */
	size_t at, size;
	bool ended; /* no more will come */
	bool shut;  /* and that was passed on */
};

enum connection_state {
	CONNECTION_CONNECTING,
	CONNECTION_ASKING, /* the request is on its way */
	CONNECTION_HEAD,   /* its answer is */
	CONNECTION_OPEN
};

struct connection {
	struct connection *next, *prev;
	struct source client, server;
	enum connection_state state;
	uint16_t port;
	bool dead;
	int64_t deadline, again_at; /* again_at 0: not waiting to connect again */
	struct sockaddr_storage address;
	socklen_t address_size;
	struct buf request;
	struct flow up, down; /* to the sandbox, from it */
};

struct relay_set {
	struct sandbox *sb;
	pthread_mutex_t lock; /* covers all below */
	int epoll;
	struct source wake;
	pthread_t thread;
	bool running, stop;
	struct listener *listeners, *dead_listeners;
	struct connection *connections, *dead_connections;
	unsigned count;
	bool full;         /* listeners are out of epoll */
	int64_t accept_at; /* likewise until then, for want of descriptors; 0: no */
	struct sockaddr_storage
		address; /* of a server reached over TCP, looked up when the first port was opened */
	socklen_t address_size;
};

/* --- relay.c --- */
/* What is to be told of a descriptor; 0: it is taken out of epoll. */
void relay_source_arm(struct relay_set *s, struct source *x, uint32_t events);
void relay_source_close(struct relay_set *s, struct source *x);
/* Listeners listen, or do not while no connection can be taken. */
void relay_listeners_arm(struct relay_set *s);

/* --- relay_connection.c --- */
/* A connection of a client to l: takes fd. */
void connection_new(struct relay_set *s, struct listener *l, int fd);
/* Something can be done for it. */
void connection_serve(struct relay_set *s, struct connection *x);
/* Tries again what is due, gives up what takes too long; lowers *next (ms, <0: never) to when it is to be asked again. */
void connection_tick(struct relay_set *s, struct connection *x, int64_t now, int64_t *next);
/* Closes both sides and puts it aside. reset: the client is to see that this was no proper end. */
void connection_close(struct relay_set *s, struct connection *x, bool reset);
void connection_free(struct connection *x);

#endif
