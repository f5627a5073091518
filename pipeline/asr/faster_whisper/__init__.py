"""The Whisper engine on CTranslate2, with the building blocks of faster-whisper."""
