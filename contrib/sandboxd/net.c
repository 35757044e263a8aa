/* Sockets; see net.h. Owns nothing: descriptors are handed on. */
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cleanup.h"
#include "http.h"
#include "text.h"

enum { BACKLOG = 1024 };

static bool number(const char *s, long max, long *out)
{
	char *end;
	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	*out = strtol(s, &end, 10);
	return !*end && !errno && *out <= max;
}

static int listen_fd(const char *s, int *out, const char **why)
{
	long fd;
	int listening = 0;
	socklen_t n = sizeof listening;
	if (!number(s, INT32_MAX, &fd) || fd < 3) {
		*why = "fd: needs a number from 3 on";
		return -EINVAL;
	}
	if (getsockopt((int)fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) < 0 || !listening) {
		*why = "the descriptor is no listening socket";
		return -ENOTSOCK;
	}
	/* Commands must not inherit it. */
	if (fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
		return -errno;
	*out = (int)fd;
	return 0;
}

/* A socket that nobody serves any more is in the way: only then it is removed. */
static bool is_stale(const struct sockaddr_un *address)
{
	struct stat st;
	if (stat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 &&
		   errno == ECONNREFUSED;
}

static int listen_unix(const char *path, int *out, const char **why)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (!*path || strlen(path) >= sizeof address.sun_path) {
		*why = "the path of the socket is empty or longer than 107 bytes";
		return -ENAMETOOLONG;
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (is_stale(&address) && unlink(path) < 0)
		return -errno;
	/* Who may connect may run anything here. */
	mode_t before = umask(0177);
	int err = bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
	umask(before);
	if (!err && listen(fd, BACKLOG) < 0)
		err = -errno;
	if (!err)
		*out = steal_fd(&fd);
	return err;
}

static int listen_inet(const char *spec, int *out, const char **why)
{
	const char *colon = strrchr(spec, ':');
	struct sockaddr_in address = {.sin_family = AF_INET};
	long port;
	AUTO_FREE char *host = colon ? strndup(spec, (size_t)(colon - spec)) : NULL;
	if (!host || !number(colon + 1, 65535, &port) ||
		inet_pton(AF_INET, host, &address.sin_addr) != 1) {
		*why = "--listen takes unix:PATH, ADDRESS:PORT or fd:N";
		return -EINVAL;
	}
	address.sin_port = htons((uint16_t)port);
	AUTO_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
		bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, BACKLOG) < 0)
		return -errno;
	*out = steal_fd(&fd);
	return 0;
}

int net_listen(const char *spec, int *fd, const char **path, const char **why)
{
	*path = NULL;
	*why = NULL;
	if (strncmp(spec, "fd:", 3) == 0)
		return listen_fd(spec + 3, fd, why);
	if (strncmp(spec, "unix:", 5) != 0)
		return listen_inet(spec, fd, why);
	int err = listen_unix(spec + 5, fd, why);
	if (!err)
		*path = spec + 5;
	return err;
}

int net_wait(struct server *server, int client, int fd, short events, int64_t deadline_ms)
{
	for (;;) {
		int64_t left = deadline_ms - text_monotonic_ms();
		struct pollfd fds[2] = {
			{.fd = fd, .events = events}, {.fd = server->stop_fd, .events = POLLIN}};
		int ready = poll(fds, 2, left <= 0 ? 0 : left < HTTP_TICK_MS ? (int)left : HTTP_TICK_MS);
		if (ready < 0 && errno != EINTR)
			return -errno;
		if (ready > 0 && fds[1].revents)
			return -ECANCELED;
		if (ready > 0 && fds[0].revents)
			return 0;
		if (client >= 0 && client_gone(client))
			return -ECANCELED;
		if (left <= 0)
			return -ETIMEDOUT;
	}
}

static int connect_to(struct server *server, int client, const struct sockaddr *address,
	socklen_t size, int64_t deadline, int *out)
{
	AUTO_FD int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, address, size) < 0) {
		if (errno != EINPROGRESS)
			return -errno;
		int err = net_wait(server, client, fd, POLLOUT, deadline);
		if (err < 0)
			return err;
		socklen_t n = sizeof err;
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0)
			return -errno;
		if (err)
			return -err;
	}
	*out = steal_fd(&fd);
	return 0;
}

int net_connect_local(struct server *server, int client, uint16_t port, int timeout_ms, int *fd)
{
	struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 six = {
		.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int64_t deadline = text_monotonic_ms() + timeout_ms;
	int err = connect_to(server, client, (struct sockaddr *)&four, sizeof four, deadline, fd);
	if (!err || err == -ECANCELED)
		return err;
	int other = connect_to(server, client, (struct sockaddr *)&six, sizeof six, deadline, fd);
	/* Without IPv6 its error says nothing of the service. */
	return !other || other == -ECANCELED ? other : err;
}
