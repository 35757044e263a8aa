/*
 * Sockets of relays: see relay_socket.h.
 */
#include "relay_socket.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"

int relay_resolve(
	struct call *c, const char *base, struct sockaddr_storage *address, socklen_t *size)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
	static const char scheme[] = "http://";

	if (strncmp(base, scheme, strlen(scheme)) != 0)
		return call_fault(c, ENOTSUP, NULL, "ports of a server behind https cannot be relayed");
	AUTO_FREE char *name = strdup(base + strlen(scheme));
	if (!name)
		return -ENOMEM;
	name[strcspn(name, "/")] = 0;
	char *colon = strrchr(name, ':'), *start = name;
	if (colon && strchr(colon, ']'))
		colon = NULL;
	if (colon)
		*colon = 0;
	if (*start == '[') { /* an IPv6 address */
		start++;
		start[strcspn(start, "]")] = 0;
	}
	int err = getaddrinfo(start, colon ? colon + 1 : "80", &hints, &found);
	if (err)
		return call_fault(c, EHOSTUNREACH, NULL, "%s: %s", start, gai_strerror(err));
	memcpy(address, found->ai_addr, found->ai_addrlen);
	*size = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}

int relay_listen(uint16_t *port, int *out)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(*port)};
	socklen_t size = sizeof(in);
	int one = 1;
	AUTO_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&in, size) < 0) {
		if (errno != EADDRINUSE && errno != EACCES)
			return -errno;
		in.sin_port = 0;
		if (bind(fd, (struct sockaddr *)&in, size) < 0)
			return -errno;
	}
	if (listen(fd, SOMAXCONN) < 0 || getsockname(fd, (struct sockaddr *)&in, &size) < 0)
		return -errno;
	*port = ntohs(in.sin_port);
	*out = steal_fd(&fd);
	return 0;
}
