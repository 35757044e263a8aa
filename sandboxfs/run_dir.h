/*
 * A private directory for the sockets of this program, for as long as it lives. Sockets in it may be made by any thread.
 */
#ifndef SBX_RUN_DIR_H
#define SBX_RUN_DIR_H

#include <stdatomic.h>

#include "call.h"

struct run_dir {
	char *path;          /* NULL: not open */
	int lock;            /* held while the program lives: tells others that path is in use */
	atomic_uint sockets; /* how many have been named */
};

/* Makes it; leftovers of programs that died are removed. 0 or an error with a fault. */
int run_dir_open(struct run_dir *r, struct call *c);
/* Removes it; the sockets are gone by then. Harmless if it is not open. */
void run_dir_close(struct run_dir *r);
/* A listening socket at *path (new), removed with unlink. */
int run_dir_listen(struct run_dir *r, struct call *c, char **path, int *fd);

#endif
