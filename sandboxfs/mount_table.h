/*
 * Which mounts of sandboxfs there are and which program serves one, found without asking the mount: a request to one that
 * hangs would hang as well, and cannot be killed. Owns nothing but what it returns.
 */
#ifndef SBX_MOUNT_TABLE_H
#define SBX_MOUNT_TABLE_H

#include <stdbool.h>
#include <sys/types.h>

/* The topmost mount at a place. */
struct mount_entry {
	char device[32]; /* "0:53": the connection to its program */
	uid_t uid;       /* who made it */
	gid_t gid;       /* likewise */
	bool local;      /* its server is local: */
};

/* Is the topmost mount at this absolute path one of ours? */
bool mount_find(const char *path, struct mount_entry *out);
/* The absolute path of a mount point, new; one of ours is found without looking into it. NULL with errno. */
char *mount_resolve(const char *given);

/*
 * Tells who asks that this process serves the mount at path: 0 and *fd, to be kept open. The kernel answers in its place, so that
 * a program that is stopped or stuck is found too, and one that has died is not.
 */
int mount_announce(const char *path, int *fd);
/* The program that serves it: a pidfd and *pid, or -1: none is found. */
int mount_program(const struct mount_entry *e, pid_t *pid);

#endif
