/*
 * git: what its row needs. See git.c.
 */
#ifndef CTL_GIT_H
#define CTL_GIT_H

#include "ctl.h"

int git_call(
	const struct ctl_ref *ref, struct call *c, const char *line, size_t n, struct buf *answer);
int git_show(const struct ctl_ref *ref, struct call *c, struct buf *out);
extern const struct ctl_talk_ops git_talk_ops;

#endif
