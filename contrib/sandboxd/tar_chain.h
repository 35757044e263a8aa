/*
 * The way from the top of a tree to one directory in it, as deep as it may be, with a bounded number of descriptors: only those of the
 * deepest levels are kept, the others are had again by `..` (and are then the same directory as before, or none). Stateless but
 * for each chain, which belongs to one thread.
 */
#ifndef SANDBOXD_TAR_CHAIN_H
#define SANDBOXD_TAR_CHAIN_H

#include <stddef.h>
#include <sys/types.h>

struct chain_level {
	char *name; /* in the level above; NULL: the top */
	dev_t dev;
	ino_t ino;
	int fd; /* -1: closed for now */
};

struct tar_chain {
	struct chain_level *levels;
	size_t depth, capacity;
};

/* Goes down into a directory: takes fd (also on failure). name NULL: it is the top. 0 or a negative errno. */
int chain_down(struct tar_chain *c, const char *name, int fd);
/* Leaves the deepest. */
void chain_up(struct tar_chain *c);
/* The deepest directory: a borrowed descriptor until the next call, or a negative errno (-ENOENT: it was moved away). */
int chain_fd(struct tar_chain *c);
void chain_release(struct tar_chain *c);

#endif
