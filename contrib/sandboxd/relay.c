/*
 * The relay to a port: after `Upgrade: sandboxfs-relay` the connection carries the bytes of a connection to
 * localhost:PORT inside. Owns both sockets while it runs, on the connection's own thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "common.h"
#include "net.h"
#include "routes.h"

enum { CONNECT_MS = 10000, RELAY_BUFFER = 64 << 10 };

struct relay {
	struct server *server;
	int fd; /* the service */
};

/* One direction: what was read and not yet written. */
struct flow {
	int from, to;
	bool ended; /* from has said its end */
	bool done;  /* and it was passed on, or nobody takes any more */
	size_t start, end;
	char data[RELAY_BUFFER];
};

/* False: the connection is broken. */
static bool flow_move(struct flow *f)
{
	if (f->start == f->end && !f->ended) {
		ssize_t n = recv(f->from, f->data, sizeof f->data, 0);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return false;
		if (n == 0)
			f->ended = true;
		f->start = 0;
		f->end = n > 0 ? (size_t)n : 0;
	}
	if (f->start < f->end) {
		ssize_t n = send(f->to, f->data + f->start, f->end - f->start, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			/* Nobody reads this way any more; the other direction may go on. */
			if (errno != EPIPE)
				return false;
			shutdown(f->from, SHUT_RD);
			f->ended = true;
			f->start = f->end;
		}
		if (n > 0)
			f->start += (size_t)n;
	}
	if (f->ended && f->start == f->end && !f->done) {
		shutdown(f->to, SHUT_WR);
		f->done = true;
	}
	return true;
}

static void add_events(const struct flow *f, struct pollfd *from, struct pollfd *to)
{
	if (f->start < f->end)
		to->events |= POLLOUT;
	else if (!f->ended)
		from->events |= POLLIN;
}

/* Nobody reads what flows to f->to: what is left of it is dropped. */
static void flow_drop(struct flow *f)
{
	f->ended = f->done = true;
	f->start = f->end;
	shutdown(f->from, SHUT_RD);
}

static void relay_run(struct relay *relay, struct flow *in, struct flow *out)
{
	for (;;) {
		if (!flow_move(in) || !flow_move(out) || (in->done && out->done))
			return;
		struct pollfd fds[3] = {
			{.fd = in->from}, {.fd = out->from}, {.fd = relay->server->stop_fd, .events = POLLIN}};
		add_events(in, &fds[0], &fds[1]);
		add_events(out, &fds[1], &fds[0]);
		/* Hang-ups come unasked: they tell of a peer that closed both ways, and would come for ever once that is known. */
		struct flow *to[2] = {out, in};
		for (int i = 0; i < 2; i++)
			if (!fds[i].events && to[i]->done)
				fds[i].fd = -1;
		if (poll(fds, 3, -1) < 0 && errno != EINTR)
			return;
		if (fds[2].revents)
			return;
		for (int i = 0; i < 2; i++)
			if (!fds[i].events && (fds[i].revents & (POLLHUP | POLLERR)))
				flow_drop(to[i]);
	}
}

/* libmicrohttpd calls it on the connection's own thread, which may block. */
static void on_upgrade(void *arg, struct MHD_Connection *connection, void *state, const char *extra,
	size_t extra_size, MHD_socket client, struct MHD_UpgradeResponseHandle *handle)
{
	(void)connection;
	(void)state;
	struct relay *relay = arg;
	struct flow *in = calloc(1, sizeof *in);
	struct flow *out = calloc(1, sizeof *out);
	int flags = fcntl(client, F_GETFL);
	if (in && out && extra_size <= sizeof in->data && flags >= 0 &&
		fcntl(client, F_SETFL, flags | O_NONBLOCK) == 0) {
		in->from = out->to = client;
		in->to = out->from = relay->fd;
		/* What came with the request already belongs to the service. */
		if (extra_size)
			memcpy(in->data, extra, extra_size);
		in->end = extra_size;
		relay_run(relay, in, out);
	}
	free(in);
	free(out);
	close(relay->fd);
	free(relay);
	MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
}

static bool wants_relay(struct request *r)
{
	const char *upgrade =
		MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_UPGRADE);
	return upgrade && strcasecmp(upgrade, "sandboxfs-relay") == 0;
}

enum MHD_Result route_relay(struct request *r)
{
	char *end;
	long port = strtol(r->id, &end, 10);
	if (*end || r->id[0] < '0' || r->id[0] > '9' || port < 1 || port > 65535)
		return reply_error(
			r, ERR_INVALID_PORT, NULL, "port.relay", "Invalid port: it must be from 1 to 65535");
	if (!wants_relay(r))
		return reply_error(r, ERR_VALIDATION, NULL, "port.relay",
			"This route is for `Connection: Upgrade` with `Upgrade: sandboxfs-relay`");
	AUTO_FD int fd = -1;
	int err = net_connect_local(r->server, r->client, (uint16_t)port, CONNECT_MS, &fd);
	if (err < 0)
		return reply_error(r, ERR_SERVICE_NOT_RESPONDING, NULL, "port.relay",
			"Nothing answers on port %ld: %s", port, strerrordesc_np(-err));
	struct relay *relay = malloc(sizeof *relay);
	if (!relay)
		return reply_error(r, ERR_INTERNAL, NULL, "port.relay", "out of memory");
	*relay = (struct relay){.server = r->server, .fd = fd};
	enum MHD_Result result = reply_upgrade(r, "sandboxfs-relay", NULL, on_upgrade, relay);
	if (result == MHD_YES)
		(void)steal_fd(&fd);
	else
		free(relay);
	return result;
}
