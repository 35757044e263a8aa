/* Terminals; see pty.h. Owns nothing: the descriptor is the command's. */
#include "pty.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cleanup.h"
#include "command.h"
#include "http.h"

static bool get_side(struct json_object *o, const char *name, unsigned otherwise, unsigned *side)
{
	int64_t n;
	*side = otherwise;
	if (!json_object_object_get_ex(o, name, NULL))
		return true;
	if (!json_number(o, name, &n) || n < 1 || n > PTY_SIDE_MAX)
		return false;
	*side = (unsigned)n;
	return true;
}

bool pty_size_of(struct json_object *o, unsigned *columns, unsigned *rows)
{
	return json_object_is_type(o, json_type_object) && get_side(o, "cols", PTY_COLUMNS, columns) &&
		   get_side(o, "rows", PTY_ROWS, rows);
}

int pty_open(unsigned columns, unsigned rows, int *us, int *them)
{
	AUTO_FD int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (master < 0)
		return -errno;
	if (grantpt(master) < 0 || unlockpt(master) < 0)
		return -errno;
	/* Through the master: its name may lead elsewhere in another mount namespace. */
	int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return -errno;
	struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows};
	if (ioctl(master, TIOCSWINSZ, &size) < 0) {
		int err = -errno;
		close(slave);
		return err;
	}
	*us = steal_fd(&master);
	*them = slave;
	return 0;
}

int pty_resize(struct command *c, unsigned columns, unsigned rows)
{
	AUTO_UNLOCK(&c->lock);
	if (!c->columns)
		return -ENOTTY;
	if (c->ended || c->terminal < 0)
		return -ESRCH;
	struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows};
	return ioctl(c->terminal, TIOCSWINSZ, &size) < 0 ? -errno : 0;
}

ssize_t pty_type(struct command *c, uint64_t at, const void *p, size_t n)
{
	AUTO_UNLOCK(&c->lock);
	if (!c->columns)
		return -ENOTTY;
	if (c->ended || c->terminal < 0)
		return -ESRCH;
	if (at == UINT64_MAX)
		at = c->typed;
	if (at > c->typed)
		return -ERANGE;
	uint64_t known = c->typed - at;
	if (known >= n)
		return (ssize_t)n;
	ssize_t done = write(c->terminal, (const char *)p + known, n - known);
	if (done < 0 && errno != EAGAIN && errno != EINTR)
		return errno == EIO ? -ESRCH : -errno;
	if (done > 0)
		c->typed += (uint64_t)done;
	return (ssize_t)known + (done > 0 ? done : 0);
}

uint64_t pty_typed(struct command *c)
{
	AUTO_UNLOCK(&c->lock);
	return c->typed;
}

int pty_borrow(struct command *c)
{
	AUTO_UNLOCK(&c->lock);
	return c->terminal >= 0 ? fcntl(c->terminal, F_DUPFD_CLOEXEC, 3) : -1;
}

void pty_wait(struct command *c, int ms)
{
	AUTO_FD int fd = pty_borrow(c);
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	(void)poll(&p, 1, ms); /* whoever waits asks again */
}
