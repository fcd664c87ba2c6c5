// What the lanes of a warp meet for.
#pragma once

enum gl_operation { GL_SHUFFLE, GL_BALLOT, GL_SYNCWARP };
