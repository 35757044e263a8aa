/*
 * Sockets: the listening one, and connections to a port of this sandbox.
 */
#ifndef SANDBOXD_NET_H
#define SANDBOXD_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "server.h"

/*
 * Opens what --listen names: unix:PATH, fd:N or ADDRESS:PORT. 0 and *fd; a negative errno with a sentence in *why (borrowed). *path is
 * the name to be removed at the end, borrowed from spec, or NULL.
 */
int net_listen(const char *spec, int *fd, const char **path, const char **why);

/*
 * Connects to 127.0.0.1:port, else [::1]:port. Non-blocking socket in *fd. 0, or a negative errno; -ETIMEDOUT after
 * timeout_ms, -ECANCELED when sandboxd stops or the client has gone (client -1: none).
 */
int net_connect_local(struct server *server, int client, uint16_t port, int timeout_ms, int *fd);
/* Waits for events on fd until the deadline: 0, -ETIMEDOUT, -ECANCELED as above. */
int net_wait(struct server *server, int client, int fd, short events, int64_t deadline_ms);

#endif
