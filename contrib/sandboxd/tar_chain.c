/* Ways into deep trees; see tar_chain.h. */
#include "tar_chain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"

enum { KEPT = 32, FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };

int chain_down(struct tar_chain *c, const char *name, int given)
{
	AUTO_FD int fd = given;
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (c->depth == c->capacity) {
		size_t capacity = c->capacity ? c->capacity * 2 : 16;
		struct chain_level *levels = realloc(c->levels, capacity * sizeof *levels);
		if (!levels)
			return -ENOMEM;
		c->levels = levels;
		c->capacity = capacity;
	}
	struct chain_level l = {.name = name ? strdup(name) : NULL, st.st_dev, st.st_ino, -1};
	if (name && !l.name)
		return -ENOMEM;
	l.fd = steal_fd(&fd);
	c->levels[c->depth++] = l;
	/* The top stays: from it the way can be gone again. */
	if (c->depth > KEPT + 1) {
		struct chain_level *old = &c->levels[c->depth - 1 - KEPT];
		if (old->fd >= 0)
			close(old->fd);
		old->fd = -1;
	}
	return 0;
}

static int same(const struct chain_level *l, int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino;
}

void chain_up(struct tar_chain *c)
{
	struct chain_level *l = &c->levels[--c->depth];
	struct chain_level *above = c->depth ? l - 1 : NULL;
	if (above && above->fd < 0 && l->fd >= 0) {
		int fd = openat(l->fd, "..", FLAGS);
		if (fd >= 0 && same(above, fd))
			above->fd = fd;
		else if (fd >= 0)
			close(fd);
	}
	if (l->fd >= 0)
		close(l->fd);
	free(l->name);
}

/* All the way from the top. */
static int go_again(struct tar_chain *c)
{
	AUTO_FD int at = fcntl(c->levels[0].fd, F_DUPFD_CLOEXEC, 3);
	if (at < 0)
		return -errno;
	for (size_t i = 1; i < c->depth; i++) {
		int next = openat(at, c->levels[i].name, FLAGS);
		if (next < 0)
			return errno == ELOOP || errno == ENOTDIR ? -ENOENT : -errno;
		close(at);
		at = next;
	}
	if (!same(&c->levels[c->depth - 1], at))
		return -ENOENT;
	return c->levels[c->depth - 1].fd = steal_fd(&at);
}

int chain_fd(struct tar_chain *c)
{
	int fd = c->levels[c->depth - 1].fd;
	return fd >= 0 ? fd : go_again(c);
}

void chain_release(struct tar_chain *c)
{
	while (c->depth)
		chain_up(c);
	free(c->levels);
	*c = (struct tar_chain){NULL, 0, 0};
}
