/*
 * The sandboxes of a server that this user has made, by name: a directory each, in a directory on this disk, with a lock that says who
 * uses it. Everything is opened relative to a descriptor and never through a link. What else is in those directories is the driver's.
 *
 * The struct is constant between names_open and names_close; functions may be called by any thread.
 */
#ifndef SBX_NAMES_H
#define SBX_NAMES_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "call.h"

struct names {
	int dir;    /* O_PATH; -1: not open */
	char *path; /* owned; for sentences */
	/* Set before names_open, borrowed: */
	const char *server;     /* how sentences begin */
	const char *another;    /* how those about path end: "; give another place: local:DIR", "" */
	const char *mountpoint; /* noted in locks; NULL: none */
	bool (*valid)(const char *name);
	const char *grammar; /* a sentence for what is not valid */
};

/* Where a user keeps data, and below ("" or "/...") behind it: new, NULL without memory; "" where there is no such place. */
char *names_data_home(const char *below);
/* Finds or makes path (owned by n now, may be ""); it must be the user's own. 0 or an error with a fault. */
int names_open(struct names *n, struct call *c);
void names_close(struct names *n);

/* The directory of a sandbox, O_PATH, never through a link: *fd new, or -ENOENT, or an error with a fault. */
int names_find(const struct names *n, struct call *c, const char *name, int *fd);
int names_create(const struct names *n, struct call *c, const char *name);
int names_each(const struct names *n, bool (*cb)(const char *name, void *arg), void *arg);
/* All there is in the directory, or NULL and errno. */
DIR *names_list(const struct names *n);
/* Forgets it: what is in dir (its directory) but the lock has been removed; the lock is held. */
int names_remove(const struct names *n, struct call *c, const char *name, int dir);
/*
 * Its lock: 0 and *fd (the lock is held until it is closed), or -EBUSY with `in use by pid N (PATH)` in the fault.
 * An OFD lock: the kernel drops it with the program, however that ends, and it can be asked about without being taken.
 */
int names_lock(const struct names *n, struct call *c, const char *name, int dir, int *fd);
/* Takes a lock that is open: 0, or -EAGAIN. */
int names_lock_now(int lock);
/* Notes in the lock what runs under it, for the next holder to wait for. */
int names_note(int lock, pid_t pid);
/* 0 free, 1 and `pid N, PATH`. */
int names_in_use(const struct names *n, const char *name, char *detail, size_t size);

#endif
