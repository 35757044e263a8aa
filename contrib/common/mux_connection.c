/* The sockets of mux.c; see mux_connection.h. */
#include "mux_connection.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "mux.h"

enum { COMPACT = MUX_WINDOW / 4 };

int mux_connection_new(int fd, uint32_t id, struct mux_connection **out)
{
	AUTO_FD int owned = fd;
	struct mux_connection *c = calloc(1, sizeof *c);
	if (!c)
		return -ENOMEM;
	c->id = id;
	c->fd = steal_fd(&owned);
	c->credit = MUX_WINDOW;
	c->window = MUX_WINDOW;
	*out = c;
	return 0;
}

void mux_connection_free(struct mux_connection *c)
{
	if (!c)
		return;
	/* Where the socket can tell its peer that this was no orderly end, it does. */
	if (!c->ended || !c->shut)
		(void)setsockopt(
			c->fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
	close(c->fd);
	buf_release(&c->out);
	free(c);
}

bool mux_connection_drained(const struct mux_connection *c)
{
	return c->deaf || c->out_at == c->out.size;
}

void mux_connection_deafen(struct mux_connection *c)
{
	c->deaf = true;
	c->out_at = 0;
	buf_release(&c->out);
}

size_t mux_connection_send(struct mux_connection *c, const void *p, size_t n)
{
	size_t done = 0;
	while (done < n) {
		ssize_t r = send(c->fd, (const char *)p + done, n - done, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (r > 0) {
			done += (size_t)r;
			c->owed += (uint32_t)r;
		} else if (errno != EINTR) {
			if (errno != EAGAIN)
				mux_connection_deafen(c);
			break;
		}
	}
	return done;
}

void mux_connection_flush(struct mux_connection *c)
{
	if (!mux_connection_drained(c))
		c->out_at += mux_connection_send(c, c->out.data + c->out_at, c->out.size - c->out_at);
	if (!mux_connection_drained(c)) {
		/* One that is never quite empty does not grow. */
		if (c->out_at >= COMPACT) {
			buf_consume(&c->out, c->out_at);
			c->out_at = 0;
		}
		return;
	}
	c->out_at = 0;
	buf_clear(&c->out);
	if (c->peer_ended && !c->shut) {
		/* Of a socket whose peer has gone it may fail; reading it tells the same. */
		(void)shutdown(c->fd, SHUT_WR);
		c->shut = true;
	}
}

bool mux_connection_wanted(const struct mux_connection *c)
{
	return c->id && !c->ended && c->credit;
}

/*
 * After END it says only that nobody reads over there: what came before is still written, and who writes to the socket is told at once,
 * since it may not read before. Without END what came is not whole, and its reader is not to take it for that.
 */
void mux_connection_reset(struct mux_connection *c)
{
	c->id = 0;
	if (!c->peer_ended)
		mux_connection_deafen(c);
	else
		(void)shutdown(c->fd, SHUT_RD); /* as SHUT_WR above */
}
