/*
 * Sockets of relays: where a server is, and a listener on this host. Owns nothing.
 */
#ifndef SBX_RELAY_SOCKET_H
#define SBX_RELAY_SOCKET_H

#include <stdint.h>
#include <sys/socket.h>

#include "call.h"

/* The address of a server over TCP, "http://HOST:PORT". It may ask a name server. 0, or an errno with a fault. */
int relay_resolve(
	struct call *c, const char *base, struct sockaddr_storage *address, socklen_t *size);
/* A socket that listens on 127.0.0.1:*port, or on another number (told there) if that is taken. 0 or a negative errno. */
int relay_listen(uint16_t *port, int *fd);

#endif
