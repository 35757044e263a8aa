/* Doubles of the rooms behind git, events, workspace.tar and backups/, for the tests of the control tree. */
#include <errno.h>

#include "git.h"

const struct ctl_talk_ops git_talk_ops;

int git_call(
	const struct ctl_ref *ref, struct call *c, const char *line, size_t n, struct buf *answer)
{
	(void)ref;
	(void)c;
	(void)line;
	(void)n;
	(void)answer;
	return -ENOTSUP;
}

int git_show(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	(void)ref;
	(void)c;
	(void)out;
	return 0;
}
