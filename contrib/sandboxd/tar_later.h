/*
 * The directories of an archive with the modes and times that they get at the end, in reverse: a stack of them in bounded memory,
 * however many there are. Beyond some kilobytes it is in a file without a name in the directory that is unpacked into. Each record holds what its path
 * has not in common with the one before, so that deep trees take no more room than flat ones. One thread.
 */
#ifndef SANDBOXD_TAR_LATER_H
#define SANDBOXD_TAR_LATER_H

#include <sys/types.h>
#include <time.h>

#include "buf.h"

struct later {
	int dir; /* borrowed: where the file would be */
	int fd;  /* of the file, or -1 */
	off_t size;
	struct buf pending; /* the end of it */
	struct buf path;    /* of the newest */
};

void later_init(struct later *l, int dir);
void later_release(struct later *l);
int later_push(struct later *l, const char *path, mode_t mode, struct timespec time);
/* 1: takes the newest off; its path goes to *path (cleared before). 0: there is none, or a negative errno. */
int later_pop(struct later *l, struct buf *path, mode_t *mode, struct timespec *time);

#endif
