/*
 * The spawner: one permanent thread that starts every child of the program and reaps exactly those.
 *
 * A parent-death signal follows the thread that forked, not the process: children of a thread that ends would be killed,
 * children of one that stays live until the program dies. Hence one thread for all, made after the program has
 * gone to the background. It never waits for children that are not its own (libfuse has some).
 *
 * Owns the children's records. Knows nothing of sandboxes. Thread-safe.
 */
#ifndef SBX_SPAWNER_H
#define SBX_SPAWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "buf.h"

struct spawner;
struct child;

struct spawn_fd {
	int from; /* here; borrowed */
	int to;   /* in the child; the numbers above 2 are used without a gap from 3 on */
};

/* Something of the host that a child with less rights could not reach by its path. */
struct spawn_mount {
	int tree;         /* from open_tree(OPEN_TREE_CLONE); borrowed */
	const char *name; /* where it appears below spawn.stage */
	bool directory;
};

struct spawn {
	const char *path;  /* absolute */
	char *const *argv; /* the environment of a child is empty */
	/*
	 * Instead of path and argv (NULL: those): what the child does, with the descriptors of fds alone; its result is the
	 * exit status. A copy of this process in which other threads may have held any lock: async-signal-safe functions only.
	 */
	int (*body)(void *arg);
	void *body_arg; /* not after spawner_start */
	const struct spawn_fd *fds;
	size_t nfds;       /* 0, 1 and 2 that are not named are /dev/null; all others are closed */
	bool collect;      /* descriptor 2 is a pipe of the spawner's: see child_output */
	int cwd;           /* directory; -1: / */
	int userns, netns; /* joined in this order; -1: none */
	bool outlives;     /* no SIGKILL when the program dies: it sees that itself, in its own order */
	bool drop;         /* become uid and gid, without other groups */
	uid_t uid;
	gid_t gid;
	uint64_t limit_data; /* RLIMIT_DATA; 0: as it is */
	struct rlimit files; /* RLIMIT_NOFILE; rlim_max 0: as it is */
	/* Only as root: a mount namespace of its own with no more than the system's directories, where stage (a top-level directory) is a small tmpfs with mounts in it. NULL: none. */
	const char *stage;
	const struct spawn_mount *mounts;
	size_t nmounts;
	bool tun;  /* with stage: /dev/net/tun is a node of mode 0666 there */
	bool fuse; /* with stage: /dev/fuse likewise */
	/* Called once on the spawner's thread when it has ended and been reaped; must not wait for a child. NULL: none. */
	void (*on_exit)(void *arg);
	void *arg;
};

int spawner_new(struct spawner **out);
/* Kills and reaps what is left, ends the thread. No child may be used afterwards but by child_put. */
void spawner_free(struct spawner *s);

/*
 * Starts a child; everything in what is borrowed for the call. 0 and *out one new reference when the program has been
 * executed (or body is about to run), else a negative errno and *stage (static text, e.g. "execve") tells which step failed.
 * Each child leads a session of its own, has default signals, SIGKILL when the program dies (but see outlives), and no_new_privs.
 * When it has ended, what is left of its process group is killed.
 */
int spawner_start(
	struct spawner *s, const struct spawn *what, struct child **out, const char **stage);
struct child *child_get(struct child *c);
void child_put(struct child *c); /* NULL is allowed; does not end it */
/* A child that has ended is left alone (and so is a stranger who has its number now). */
void child_signal(struct child *c, int sig);
/* SIGKILL for a child and all that it has started and that is still in its process group; nothing once it has ended. */
void child_kill_group(struct child *c);
/* Until it has been reaped and on_exit has returned: 0 and *status as of wait(2) (may be NULL), or -ETIMEDOUT (deadline: call_now_ms clock; <0: none). */
int child_wait(struct child *c, int64_t deadline_ms, int *status);
bool child_ended(struct child *c);
/* Appends the newest 4 KiB at most of what it wrote to descriptor 2. */
void child_output(struct child *c, struct buf *out);

#endif
