/*
 * One of the connections of mux.c: its socket, what is on its way to it, and how far it has ended. Knows nothing of frames.
 */
#ifndef SBX_MUX_CONNECTION_H
#define SBX_MUX_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

struct mux_connection {
	uint32_t id; /* 0: the other side has reset it; what has arrived is still written */
	int fd;
	bool readable;   /* poll said so, and no read has come up empty since */
	bool ended;      /* its socket gave end of file; END was sent */
	bool peer_ended; /* END has come */
	bool shut;       /* and was passed to the socket */
	bool deaf;       /* the socket takes no more */
	bool broken;     /* the socket gives no more, and not because it ended */
	uint32_t credit; /* what we may send */
	uint32_t window; /* what the other side may send */
	uint32_t owed;   /* taken by the socket, not yet given as credit */
	struct buf out;  /* to the socket, from out_at */
	size_t out_at;
};

/* Takes fd, also on failure. 0 and *out new, or -ENOMEM. */
int mux_connection_new(int fd, uint32_t id, struct mux_connection **out);
void mux_connection_free(struct mux_connection *c);

/* Is nothing on its way to the socket? */
bool mux_connection_drained(const struct mux_connection *c);
/* The socket takes no more: what is on its way goes nowhere. */
void mux_connection_deafen(struct mux_connection *c);
/* What the socket takes of p at once; the rest is the caller's. */
size_t mux_connection_send(struct mux_connection *c, const void *p, size_t n);
/* Writes what the socket takes, and the other side's end behind the last. */
void mux_connection_flush(struct mux_connection *c);
/* Would something be read from the socket, if it is there? */
bool mux_connection_wanted(const struct mux_connection *c);
/* RESET has come. */
void mux_connection_reset(struct mux_connection *c);

#endif
